//! Where callers and operators connect.

use super::{Config, assert_refused};

#[test]
fn two_listeners_need_two_ports() {
    let text = |listen: &str, admin: &str| {
        format!("[server]\nlisten = '{listen}'\nadmin_listen = '{admin}'")
    };
    let clashes = [
        ("127.0.0.1:1", "127.0.0.1:1"),
        ("0.0.0.0:1", "127.0.0.1:1"),
        ("127.0.0.1:1", "0.0.0.0:1"),
        ("[::]:1", "127.0.0.1:1"),
        ("[::]:1", "0.0.0.0:1"),
        ("10.0.0.1:1", "[::]:1"),
        ("[::1]:1", "[::]:1"),
        ("[::1]:1", "[::1]:1"),
        ("[::ffff:127.0.0.1]:1", "127.0.0.1:1"),
    ];
    for (listen, admin) in clashes {
        assert_refused(&text(listen, admin), "server.admin_listen");
    }
    let fine = [
        ("127.0.0.1:1", "127.0.0.1:2"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("0.0.0.0:0", "0.0.0.0:0"),
        ("127.0.0.1:1", "127.0.0.2:1"),
        ("[::1]:1", "127.0.0.1:1"),
        ("0.0.0.0:1", "[::1]:1"),
        ("127.0.0.1:1", "off"),
    ];
    for (listen, admin) in fine {
        assert!(
            Config::parse(&text(listen, admin)).is_ok(),
            "{listen} {admin}"
        );
    }
    // The default may be the other one.
    assert_refused("[server]\nlisten = '0.0.0.0:9464'", "server.admin_listen");
    assert_refused(
        "[server]\nadmin_listen = '0.0.0.0:50051'",
        "server.admin_listen",
    );
}
