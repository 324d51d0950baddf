"""Lightning, imported from the package that is installed: ``lightning`` or ``pytorch_lightning``, never both."""

try:
    import lightning.pytorch as pl
    from lightning.pytorch.plugins import environments
except ImportError:
    import pytorch_lightning as pl
    from pytorch_lightning.plugins import environments

Callback = pl.Callback
Logger = pl.loggers.Logger

__all__ = ["Callback", "Logger", "environments", "pl"]
