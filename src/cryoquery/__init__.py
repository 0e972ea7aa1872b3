"""Active learning for cryo-EM particle picking: which micrographs to label next, and how many.

The names in ``__init__.pyi`` are loaded when they are first used, so that `import cryoquery` is quick.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
