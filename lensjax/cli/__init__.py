"""The command line: options, console and the frame that all commands share."""
