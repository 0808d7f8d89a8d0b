"""The command line: what people type, and what they see."""

import gc

# Most of what a command makes lives until it ends: by Python's own thresholds, looking for what
# does not takes a twelfth of a short command's time. Long commands still find what they leave.
gc.set_threshold(100_000)
