//! The floor of a redemption: a server at a unix socket that asks nobody and answers with the same bytes.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Serves one client after the other, in a process of its own, until it is killed.
pub fn serve(socket: &Path) {
    let listener = UnixListener::bind(socket).expect("a socket");
    for stream in listener.incoming() {
        let mut stream = stream.expect("a client");
        let mut request = [0; 128];
        let mut len = 0;
        while !request[..len].ends_with(b"\n") {
            len += stream.read(&mut request[len..]).expect("a request");
        }
        stream.write_all(b"secret 28\ncorrect horse battery staple").expect("an answer");
    }
}
