"""Lightning, under whichever of its two names it is installed; never both."""

try:
    import lightning.pytorch as pl
except ImportError:
    import pytorch_lightning as pl

__all__ = ["pl"]
