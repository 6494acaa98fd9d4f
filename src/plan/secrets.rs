//! The `secrets:` list: each a name and exactly one source.

use std::time::Duration;

use super::build::Programs;
use super::command;
use super::scope::Scope;
use super::{SecretId, SecretSpec, Source};
use crate::config::{Kind, Node, Section, Value};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// For sources that may ask a person for leave.
const DEFAULT_TIMEOUT_PERSON: Duration = Duration::from_secs(300);

const SOURCES: [&str; 8] =
    ["command", "env", "file", "credential", "onepassword", "keychain", "secret_service", "prompt"];

/// Reads the list. Names are known afterwards also of those whose source is wrong, so that one
/// mistake is told once.
pub(super) fn read<'c>(node: &'c Node<'_>, programs: &mut Programs, scope: &mut Scope<'c>) -> Vec<SecretSpec> {
    let Some(items) = node.list("a list of secrets", &mut scope.problems) else {
        return Vec::new();
    };
    let mut secrets = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let Some(mut map) = item.section("a map with `name` and a source", &mut scope.problems) else {
            continue;
        };
        let name = map.required("name", &mut scope.problems).and_then(|node| name(node, index, scope));
        let source = source(&mut map, programs, scope);
        let timeout = map.optional("timeout").map(|node| timeout(node, scope));
        map.finish(&mut scope.problems);
        if let (Some(name), Some(source)) = (name, source) {
            let timeout = timeout.unwrap_or(Some(default_timeout(&source)));
            secrets.push(SecretSpec { name, source, timeout });
        }
    }
    secrets
}

fn name<'c>(node: &'c Node<'_>, index: usize, scope: &mut Scope<'c>) -> Option<String> {
    let name = scope.name(node)?;
    // The index is the id as long as no secret is left out, and then there is a problem.
    if scope.secrets.insert(name, SecretId(index as u32)).is_some() {
        scope.problems.add(node.at, "another secret has this name");
    }
    Some(name.to_string())
}

fn default_timeout(source: &Source) -> Duration {
    match source {
        Source::Command { .. } | Source::Env(_) | Source::File(_) | Source::Credential(_) => DEFAULT_TIMEOUT,
        Source::OnePassword { .. } | Source::Keychain { .. } | Source::SecretService { .. } | Source::Prompt(_) => {
            DEFAULT_TIMEOUT_PERSON
        }
    }
}

/// `0` waits for ever, and is the one duration that needs no unit.
fn timeout(node: &Node<'_>, scope: &mut Scope<'_>) -> Option<Duration> {
    match &node.value {
        Value::Scalar(Kind::Number, text) if text == "0" => None,
        _ => node.duration(&mut scope.problems).filter(|timeout| !timeout.is_zero()),
    }
}

fn source<'c>(map: &mut Section<'c, '_>, programs: &mut Programs, scope: &mut Scope<'c>) -> Option<Source> {
    let given: Vec<(&str, &Node<'_>)> =
        SOURCES.iter().filter_map(|key| map.optional(key).map(|node| (*key, node))).collect();
    let pin = map.optional("sha256").and_then(|node| command::digest(node, scope).map(|digest| (node.at, digest)));
    let [(kind, node)] = given[..] else {
        let what = match given.len() {
            0 => "has no source",
            _ => "has more than one source",
        };
        scope.problems.add(map.at(), format!("{what}, expected exactly one of {}", SOURCES.join(", ")));
        return None;
    };
    if let Some((at, _)) = &pin
        && kind != "command"
    {
        scope.problems.add(*at, "`sha256` goes with `command` only");
    }
    if kind == "command" {
        let (program, arguments) = command::words(node, scope)?;
        let program = programs.of_source(&program, pin.map(|(_, digest)| digest), scope);
        let arguments = arguments.iter().map(|argument| scope.host.expand(argument)).collect();
        return Some(Source::Command { program, arguments });
    }
    source_by_name(kind, node, programs, scope)
}

fn source_by_name<'c>(
    kind: &str,
    node: &'c Node<'_>,
    programs: &mut Programs,
    scope: &mut Scope<'c>,
) -> Option<Source> {
    match kind {
        "env" => scope.variable(node).map(|name| Source::Env(name.to_string())),
        "file" => scope.path(node).map(Source::File),
        "credential" => credential(node, scope).map(Source::Credential),
        "onepassword" => {
            let reference = onepassword(node, scope)?;
            Some(Source::OnePassword { program: programs.of_source("op", None, scope), reference })
        }
        "keychain" => keychain(node, programs, scope),
        "secret_service" => secret_service(node, programs, scope),
        _ => node.text("the text to ask with", &mut scope.problems).map(|text| Source::Prompt(text.to_string())),
    }
}

fn credential(node: &Node<'_>, scope: &mut Scope<'_>) -> Option<String> {
    let name = node.text("the name of a credential", &mut scope.problems)?;
    if name.contains('/') || name == "." || name == ".." {
        scope.problems.add(node.at, "expected the name of a credential, not a path");
        return None;
    }
    Some(name.to_string())
}

fn onepassword(node: &Node<'_>, scope: &mut Scope<'_>) -> Option<String> {
    const WANTED: &str = "a reference such as op://vault/item/field";
    let reference = node.text(WANTED, &mut scope.problems)?;
    if !reference.starts_with("op://") {
        scope.problems.add(node.at, format!("expected {WANTED}"));
        return None;
    }
    Some(reference.to_string())
}

fn keychain<'c>(node: &'c Node<'_>, programs: &mut Programs, scope: &mut Scope<'c>) -> Option<Source> {
    let mut map = node.section("a map such as {service: restic, account: me}", &mut scope.problems)?;
    let service = map.required("service", &mut scope.problems);
    let service = service.and_then(|node| node.text("the name of a service", &mut scope.problems));
    let account = map.optional("account");
    let account = account.and_then(|node| node.text("the name of an account", &mut scope.problems));
    map.finish(&mut scope.problems);
    Some(Source::Keychain {
        service: service?.to_string(),
        account: account.map(str::to_string),
        program: programs.of_source("security", None, scope),
    })
}

fn secret_service(node: &Node<'_>, programs: &mut Programs, scope: &mut Scope<'_>) -> Option<Source> {
    const WANTED: &str = "a map of attributes such as {service: restic}";
    let entries = node.map(WANTED, &mut scope.problems)?;
    if entries.is_empty() {
        scope.problems.add(node.at, format!("empty, expected {WANTED}"));
    }
    let mut attributes = Vec::with_capacity(entries.len());
    for (name, node) in entries {
        if name.is_empty() {
            scope.problems.add(node.at, "an empty name of an attribute");
        }
        let value = node.text("the text of an attribute", &mut scope.problems)?;
        attributes.push((name.to_string(), value.to_string()));
    }
    Some(Source::SecretService { attributes, program: programs.of_source("secret-tool", None, scope) })
}
