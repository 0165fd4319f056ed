"""The rim: listeners and front doors, one optional package per module, each usable alone.

Nothing is imported here, so that one adapter never needs the packages of another: import the module that you use, as in
`from torchsystem.adapters.history import History`. One whose package is not installed says which extra brings it.
"""
