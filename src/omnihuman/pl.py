"""Lightning, imported from the package that is installed: ``lightning`` or ``pytorch_lightning``, never both."""

try:
    import lightning.pytorch as pl
except ImportError:
    import pytorch_lightning as pl

Callback = pl.Callback
Logger = pl.loggers.Logger

__all__ = ["Callback", "Logger", "pl"]
