//! Templates: the built-in ones, and those of an operator's folder.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Answer, TestGateway, fixture};
use crate::program::Installation;
use crate::shapes::{check, documented};

/// A template of an operator.
const DELIVERY: &str = r#"{
    "type": "object",
    "title": "Delivery note",
    "properties": { "number": { "type": "string", "description": "the number of the note" } }
}"#;

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[tokio::test]
async fn a_template_of_the_operator_is_listed_shown_and_used_like_a_built_in_one() {
    let folder = folder(&[("delivery.json", DELIVERY)]);
    let gateway =
        TestGateway::with(|setup| setup.settings.templates.dir = folder.path().to_owned()).await;
    let list = Answer::of(gateway.get("/templates")).await.json;
    check(&documented("TemplateList"), &list);
    let listed: Vec<_> = list["templates"].as_array().unwrap().iter().collect();
    let names: Vec<_> = listed.iter().map(|template| template["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["receipt", "invoice", "id_card", "train_ticket", "delivery"]);
    assert_eq!(listed[0]["origin"], "built_in");
    let own = json!({
        "name": "delivery", "title": "Delivery note", "description": "", "origin": "operator",
    });
    assert_eq!(listed[4], &own);
    let shown = Answer::of(gateway.get("/templates/delivery")).await.json;
    check(&documented("Template"), &shown);
    assert_eq!(shown["schema"], serde_json::from_str::<Value>(DELIVERY).unwrap());
    for path in ["/extract", "/estimate"] {
        let answer =
            gateway.upload(&format!("{path}?template=delivery"), fixture("hello.png")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let schema = gateway.upstream().calls()[0].task.clone();
    assert!(schema.is_some());
    let unknown = gateway.upload("/extract?template=deliveries", fixture("hello.png")).await;
    assert_eq!((unknown.status.as_u16(), unknown.code()), (404, "unknown_template"));
}

#[tokio::test]
async fn a_folder_with_a_file_that_is_no_template_keeps_the_service_from_starting() {
    let mut installation = Installation::reading("").await;
    for (file, text, why) in [
        ("receipt.json", DELIVERY, "has the name of a built-in template"),
        ("note.json", r#"{"type": "object", "properties": {"a": {"type": "x"}}}"#, "/properties/a"),
    ] {
        let folder = folder(&[("delivery.json", DELIVERY), (file, text)]);
        installation.set("TEMPLATES__DIR", folder.path().to_str().unwrap());
        for command in ["serve", "check"] {
            let ended = installation.run(command).await;
            assert_eq!(ended.code, 1, "{command}");
            let told = format!("{}{}", ended.out, ended.err);
            assert!(told.contains(file) && told.contains(why), "{told}");
        }
    }
    let folder = folder(&[("delivery.json", DELIVERY)]);
    installation.set("TEMPLATES__DIR", folder.path().to_str().unwrap());
    let check = installation.run("check").await.out;
    assert!(check.contains("ok      templates: 4 built in, 1 in "), "{check}");
}
