//! The Docker Engine API's JSON documents, as types shared by server and clients. No I/O.
