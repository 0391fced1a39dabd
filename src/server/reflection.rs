//! Server reflection: how grpcurl learns what is served.

use tonic::{codec::CompressionEncoding, service::Routes};

use super::methods::{MAX_NAME_REQUEST_BYTES, ServiceSet};
use crate::{config, pb::FILE_DESCRIPTOR_SET};

/// Adds both versions of reflection, as older grpcurl knows only v1alpha. They list the
/// services of this server, and describe the whole contract.
pub(super) fn with_reflection(
    routes: Routes,
    services: ServiceSet,
    settings: &config::Server,
) -> Routes {
    use tonic_health::pb::{self as health, health_server};
    use tonic_reflection::{
        pb::{v1, v1alpha},
        server::Builder,
    };
    if !settings.reflection {
        return routes;
    }
    let builder = || {
        let builder = Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(health::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(v1alpha::FILE_DESCRIPTOR_SET)
            .with_service_name(health_server::SERVICE_NAME)
            .with_service_name(v1::server_reflection_server::SERVICE_NAME)
            .with_service_name(v1alpha::server_reflection_server::SERVICE_NAME);
        let own = services.own();
        own.fold(builder, |builder, name| builder.with_service_name(name))
    };
    // The descriptors are compiled in: invalid ones fail every test.
    let v1 = builder().build_v1().expect("valid descriptors");
    let v1alpha = builder().build_v1alpha().expect("valid descriptors");
    // tonic receives their requests, which are streams.
    routes
        .add_service(
            v1.max_decoding_message_size(MAX_NAME_REQUEST_BYTES)
                .accept_compressed(CompressionEncoding::Gzip),
        )
        .add_service(
            v1alpha
                .max_decoding_message_size(MAX_NAME_REQUEST_BYTES)
                .accept_compressed(CompressionEncoding::Gzip),
        )
}
