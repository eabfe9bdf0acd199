//! The durable store: blobs, layers, snapshots, images, records, leases and garbage collection.
