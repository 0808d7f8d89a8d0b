"""Whether a workstation can build, what to do where it cannot, and doing what needs no rights."""
