// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which implementation of the ciphers TLS uses: ring, which seals the packs too. The choice is
//! the process's, and has to be made before the first client is built.

/// Makes the choice; the first one stands. Whoever builds an HTTP client calls this before.
pub fn use_ring() {
    // An error says that it was made already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
