//! Image references, as far as a client must understand them.

/// The name under which credentials for Docker Hub are kept.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The reference with `:latest` if it has neither tag nor digest.
pub(super) fn with_tag(image: &str) -> String {
    let name = image.rsplit('/').next().unwrap_or(image);
    if image.is_empty() || name.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

/// The registry of an image, as credentials are filed under it.
pub(crate) fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some(("docker.io" | "index.docker.io", _)) | None => DOCKER_HUB,
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        Some(_) => DOCKER_HUB,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_and_registries() {
        for (image, tagged, registry) in [
            ("nginx", "nginx:latest", DOCKER_HUB),
            ("nginx:1", "nginx:1", DOCKER_HUB),
            ("team/app", "team/app:latest", DOCKER_HUB),
            ("docker.io/team/app:2", "docker.io/team/app:2", DOCKER_HUB),
            ("reg.example:5000/app", "reg.example:5000/app:latest", "reg.example:5000"),
            ("localhost/app", "localhost/app:latest", "localhost"),
            ("app@sha256:00", "app@sha256:00", DOCKER_HUB),
            ("", "", DOCKER_HUB),
        ] {
            assert_eq!((with_tag(image).as_str(), registry_of(image)), (tagged, registry));
        }
    }
}
