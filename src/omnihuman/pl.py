"""Lightning, imported from the package that is installed: ``lightning`` or ``pytorch_lightning``, never both."""

try:
    import lightning.pytorch as pl
except ImportError:
    import pytorch_lightning as pl

__all__ = ["pl"]
