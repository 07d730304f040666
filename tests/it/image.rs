//! The images: their build context has the files that Cargo needs, and a file can override their settings.
//!
//! `scripts/image` builds and runs the images, which takes minutes. These tests find common faults in a second.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use ocr_gateway::settings::Settings;

use crate::harness::SCRIPTED_TEXT;
use crate::nginx::free_address;
use crate::program::Installation;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files that `.dockerignore` lets into the context. It must first exclude everything and then list what is
/// included, so that a new file with secrets is excluded.
fn context() -> Vec<String> {
    let file = fs::read_to_string(root().join(".dockerignore")).unwrap();
    let mut lines = file.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    assert_eq!(lines.next(), Some("*"));
    lines.map(|line| line.strip_prefix('!').expect(line).to_owned()).collect()
}

fn copy(from: &Path, to: &Path) {
    if from.is_file() {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
        return;
    }
    for entry in fs::read_dir(from).unwrap() {
        let name = entry.unwrap().file_name();
        copy(&from.join(&name), &to.join(&name));
    }
}

#[test]
fn cargo_finds_every_file_that_the_manifests_name_in_the_build_context() {
    let folder = tempfile::tempdir().unwrap();
    for path in context() {
        copy(&root().join(&path), &folder.path().join(&path));
    }
    // Cargo looks for the files when it is asked to build. It then stops, because no program has this name.
    for package in ["ocr-gateway", "dashscope-emulator"] {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--offline", "--locked", "--bin", "no-such-program", "--package"]);
        let built = cargo.arg(package).current_dir(folder.path()).output().unwrap();
        let said = String::from_utf8(built.stderr).unwrap();
        assert!(said.contains("no bin target named `no-such-program`"), "{package}: {said}");
    }
}

#[test]
fn the_image_sets_nothing_by_variables_that_would_overrule_a_mounted_file() {
    let file = fs::read_to_string(root().join("Dockerfile")).unwrap();
    let instructions: Vec<_> = file.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(!instructions.join("\n").contains("OCR_GATEWAY__"));
}

#[test]
fn the_image_listens_on_all_addresses_and_changes_nothing_else() {
    let file = root().join("config/container.toml");
    let load =
        |files: &[&Path]| Settings::load_with(files.iter().copied(), HashMap::new()).unwrap();
    let (mut image, plain) = (load(&[&file]), load(&[]));
    assert_eq!(image.server.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(image.server.metrics_listen.to_string(), "0.0.0.0:9090");
    (image.server.listen, image.server.metrics_listen) =
        (plain.server.listen, plain.server.metrics_listen);
    assert_eq!(format!("{image:?}"), format!("{plain:?}"));
}

#[tokio::test]
async fn a_configuration_file_overrules_the_defaults_of_the_image_and_the_environment_overrules_both()
 {
    let mut installation = Installation::reading(SCRIPTED_TEXT).await;
    let addresses = [(); 3].map(|()| free_address());
    let files = ["defaults.toml", "gateway.toml"].map(|name| installation.folder.path().join(name));
    for (file, address) in files.iter().zip(&addresses) {
        fs::write(file, format!("[server]\nlisten = \"{address}\"\n")).unwrap();
    }
    installation.unset("SERVER__LISTEN");
    installation.variable("OCR_GATEWAY_DEFAULTS", files[0].to_str().unwrap());
    let listens_at = async |installation: &Installation| installation.serve().await.address;
    assert_eq!(listens_at(&installation).await, format!("http://{}", addresses[0]));
    installation.variable("OCR_GATEWAY_CONFIG", files[1].to_str().unwrap());
    assert_eq!(listens_at(&installation).await, format!("http://{}", addresses[1]));
    installation.set("SERVER__LISTEN", addresses[2].clone());
    assert_eq!(listens_at(&installation).await, format!("http://{}", addresses[2]));
}
