"""What K-FAC, SP-NGD and THOR have in common on every framework, besides mathematics: settings, policies, plan."""
