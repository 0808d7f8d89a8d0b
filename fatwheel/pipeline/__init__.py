"""The steps of a build in their order; also rebuilding, previews and proofs."""
