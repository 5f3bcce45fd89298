"""What the stack refuses to do, said in one sentence a person can act on."""


class StackError(Exception):
    """The command stops; its message is printed as it stands, without a traceback."""


class PartFailed(StackError):
    """One part of the stack ended, or never became ready; the message quotes the end of its log."""
