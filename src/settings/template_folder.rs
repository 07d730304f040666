//! The operator's folder of templates: a file `NAME.json` for each.
//!
//! The folder is read once, at the start. Files whose names begin with a dot are skipped, because Kubernetes keeps
//! those of a `ConfigMap` beside the files that it shows.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::extract::templates::{TemplateError, Templates};

/// The most files of the folder.
const MOST_FILES: usize = 100;

/// The largest file, in bytes. A schema may have a quarter of it, without its line breaks and spaces.
const LARGEST_FILE: u64 = 256 * 1024;

/// The section `[templates]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateSettings {
    /// The folder; none if empty.
    pub dir: PathBuf,
}

/// A folder of templates that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TemplateFolderError {
    /// The folder, or a file in it, cannot be read.
    #[error("templates.dir: cannot read {}: {cause}", path.display())]
    Unreadable {
        /// The folder or the file.
        path: PathBuf,
        /// The reason.
        cause: io::Error,
    },
    /// The folder has too many files.
    #[error("templates.dir: {} has more than {MOST_FILES} files", path.display())]
    TooMany {
        /// The folder.
        path: PathBuf,
    },
    /// A file is no template.
    #[error("templates.dir: {} {cause}", path.display())]
    Template {
        /// The file.
        path: PathBuf,
        /// The reason.
        cause: TemplateError,
    },
}

impl TemplateSettings {
    /// The built-in templates and those of the folder.
    ///
    /// # Errors
    ///
    /// [`TemplateFolderError`] names the file.
    pub fn load(&self) -> Result<Templates, TemplateFolderError> {
        let mut templates = Templates::built_in();
        if self.dir.as_os_str().is_empty() {
            return Ok(templates);
        }
        for path in files(&self.dir)? {
            let unreadable = |cause| TemplateFolderError::Unreadable { path: path.clone(), cause };
            let name = name(&path).map_err(unreadable)?;
            let text = text(&path).map_err(unreadable)?;
            let added = templates.add(name, &text);
            added.map_err(|cause| TemplateFolderError::Template { path: path.clone(), cause })?;
        }
        Ok(templates)
    }
}

/// The files of the folder, in the order of their names.
fn files(folder: &Path) -> Result<Vec<PathBuf>, TemplateFolderError> {
    let unreadable = |cause| TemplateFolderError::Unreadable { path: folder.to_owned(), cause };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if files.len() == MOST_FILES {
            return Err(TemplateFolderError::TooMany { path: folder.to_owned() });
        }
        files.push(entry.path());
    }
    files.sort();
    Ok(files)
}

/// The name of the template in a file.
fn name(path: &Path) -> io::Result<&str> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.and_then(|name| name.strip_suffix(".json"));
    name.ok_or_else(|| io::Error::other("its name is not of the form NAME.json"))
}

fn text(path: &Path) -> io::Result<String> {
    // Opening a pipe waits for its writer, so check the kind first.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(io::Error::other(format!("it has more than {LARGEST_FILE} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const SCHEMA: &str = r#"{"type": "object", "properties": {"a": {"type": "string"}}}"#;

    fn folder(files: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn load(folder: &Path) -> Result<Templates, String> {
        let settings = TemplateSettings { dir: folder.to_owned() };
        settings.load().map_err(|error| error.to_string())
    }

    #[test]
    fn each_file_is_a_template_in_the_order_of_their_names() {
        let folder = folder(&[("b.json", SCHEMA), ("a.json", SCHEMA), (".hidden", "x")]);
        fs::create_dir(folder.path().join("..2026_01_01")).unwrap();
        let templates = load(folder.path()).unwrap();
        let names: Vec<_> = templates.all().iter().map(|template| template.name.as_str()).collect();
        assert_eq!(names, ["receipt", "invoice", "id_card", "train_ticket", "a", "b"]);
        assert_eq!(load(Path::new("")).unwrap().all().len(), 4);
    }

    #[test]
    fn a_file_that_is_no_template_is_named_with_the_reason() {
        let large = " ".repeat(300_000);
        for (file, text, why) in [
            ("a.json", "{", "is not JSON"),
            ("a.json", "{}", "is no schema that can be used"),
            ("receipt.json", SCHEMA, "has the name of a built-in template"),
            ("a.yaml", SCHEMA, "NAME.json"),
            ("a.json", &*large, "more than 262144 bytes"),
        ] {
            let folder = folder(&[(file, text)]);
            let refused = load(folder.path()).unwrap_err();
            assert!(refused.starts_with("templates.dir: ") && refused.contains(file), "{refused}");
            assert!(refused.contains(why), "{refused}");
        }
        let nested = folder(&[]);
        fs::create_dir(nested.path().join("a.json")).unwrap();
        assert!(load(nested.path()).unwrap_err().contains("no regular file"));
        assert!(load(Path::new("/nowhere")).unwrap_err().contains("cannot read /nowhere"));
        let many: Vec<_> = (0..101).map(|number| format!("{number}.json")).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), SCHEMA)).collect();
        assert!(load(folder(&many).path()).unwrap_err().contains("more than 100 files"));
    }
}
