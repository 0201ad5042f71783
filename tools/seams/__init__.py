"""What this project uses of vLLM, compared between two releases by their syntax trees.

    source     the files of a package: in a folder, in a wheel, or installed
    bindings   which names a body of code binds, and to what
    things     what a name can stand for: a module, a class, a function, a variable, an instance
    world      several packages together: modules and names, followed as Python would
    members    attributes of classes: their own, inherited, set on self
    infer      what an expression is an instance of, from annotations and constructors
    calls      what our calls give
    signature  parameters of functions and constructors, and which calls they take
    sites      every place in our files that touches vLLM
    compare    what one release has of that and another has not

Nothing is imported, so neither release has to work on this machine. What cannot be followed (``Any``) a file
can declare in a module-level ``SEAMS``, see :mod:`tools.seams.sites`.
"""
