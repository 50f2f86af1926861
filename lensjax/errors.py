"""What the user got wrong, said in one line."""


class UserError(ValueError):
    """A mistake in what the user gave: a path, a file, a flag, a config field.

    The message says what was found, where, and what to do. The command line prints it alone, without
    a traceback, and exits with code 2.
    """
