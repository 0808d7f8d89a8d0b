import torch

from . import _C as _C

triple_ = torch.ops.fatwheel_abi3.triple_
