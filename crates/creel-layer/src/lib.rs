//! Layers: tar streams to files and back, overlay's whiteouts, differences between trees.
