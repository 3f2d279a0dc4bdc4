"""The statements of the delivery, by subject; each function is one short transaction or part of one."""
