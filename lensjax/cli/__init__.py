"""The command line: options, help, console output, and the code that runs every command."""
