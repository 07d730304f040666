//! The images: Cargo finds in their build context what it looks for.
//!
//! `scripts/image` builds and runs them for real, which takes minutes. This test finds the common fault in a second.

use std::fs;
use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What `.dockerignore` lets into the context. It must leave out everything first and name what comes in, so that a
/// new file of secrets stays out.
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
    // Cargo looks for the files when it is asked to build. It finds no program of this name and stops, after that.
    for package in ["ocr-gateway", "dashscope-emulator"] {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--offline", "--locked", "--bin", "no-such-program", "--package"]);
        let built = cargo.arg(package).current_dir(folder.path()).output().unwrap();
        let said = String::from_utf8(built.stderr).unwrap();
        assert!(said.contains("no bin target named `no-such-program`"), "{package}: {said}");
    }
}
