//! Moves images: registry pull and push, docker-archive and oci-archive.
