"""What K-FAC, SP-NGD and THOR share on every framework besides mathematics: settings, policies, plan, mixup."""
