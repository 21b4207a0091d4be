"""How a traced function tells whether it is traced under the cures."""


def under_cures():
    """False, and while a graph is traced under the cures replaced by a function that says True."""
    return False


def yes():
    """True."""
    return True


FUNCTIONS = {under_cures: yes}
