"""`invoke bench`: builds measured against the way that upstream builds, on the same machine."""
