"""The command line: ``app`` has the entry point; ``backends``, ``train`` and ``conformance`` are a command each."""
