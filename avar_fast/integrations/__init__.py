"""The plug-in, AGTO and VARS in other people's trainers. TRL's part is in ``integrations.trl``."""

from .agto import AgtoMixin
from .loaded import use_avar

__all__ = ["AgtoMixin", "use_avar"]
