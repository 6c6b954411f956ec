"""The one exception of mmjax that a user causes and can mend."""


class UsageError(ValueError):
    """A wrong argument, file or value, said in one line with what would be right.

    The command line prints it and exits with status 2; as a library error it is a ``ValueError``.
    """
