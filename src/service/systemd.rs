//! Units for systemd: systemd.unit(5), systemd.service(5), systemd.exec(5).

use super::needs::Needs;
use super::paths;
use super::template::fill;
use super::{Facts, Scope};
use crate::plan::{Plan, Source};

/// Root reads every file, and writes those of others in a repository that is theirs.
const CAPABILITIES: &str = "CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER";

/// The unit of the system's daemon, which runs as root in a sandbox.
pub fn system_unit(plan: &Plan, facts: &Facts) -> String {
    let needs = Needs::of(plan);
    let state_directory = paths::has_own_state(plan).then(|| "backupnizza".to_owned());
    let mounts = [facts.config.as_str()].into_iter().map(quote).chain([quote(&plan.state_dir.to_string_lossy())]);
    let folders: Vec<String> =
        paths::to_make(plan, facts).iter().map(|path| quote_word(&path.to_string_lossy())).collect();
    let writable = paths::writable(plan, facts);
    // Without the dash a folder that is missing would keep the service from starting.
    let writable = writable.iter().map(|path| format!("ReadWritePaths={}", quote(&format!("-{}", path.display()))));
    let mut values = common(plan, facts, "/etc/credstore");
    values.extend([
        ("mounts", vec![mounts.collect::<Vec<_>>().join(" ")]),
        ("folders", vec![folders.join(" ")]),
        ("state_directory", state_directory.into_iter().collect()),
        ("writable", writable.collect()),
        ("capabilities", vec![capabilities(needs)]),
        ("runtime_mode", vec![if needs.other_users { "0711" } else { "0700" }.to_owned()]),
        ("restrict_suid", vec![if needs.owners { "no" } else { "yes" }.to_owned()]),
        ("system_calls", system_calls(needs).into_iter().collect()),
    ]);
    fill(include_str!("system.service"), &values)
}

/// The unit of one user's daemon.
pub fn user_unit(plan: &Plan, facts: &Facts) -> String {
    let credentials = facts.home.join(".config/credstore");
    fill(include_str!("user.service"), &common(plan, facts, &credentials.to_string_lossy()))
}

type Values = Vec<(&'static str, Vec<String>)>;

fn common(plan: &Plan, facts: &Facts, credentials: &str) -> Values {
    let variables = facts.variables.iter().map(|(name, value)| quote(&format!("{name}={value}")));
    vec![
        ("command", vec![format!("{} {}", quote_word(&facts.program), quote_word(&facts.config))]),
        ("variables", variables.collect()),
        ("credentials", credential_lines(plan, credentials)),
        ("stop_seconds", vec![facts.stop_seconds.to_string()]),
    ]
}

fn credential_lines(plan: &Plan, folder: &str) -> Vec<String> {
    let names = credential_names(plan);
    let mut lines = Vec::new();
    if !names.is_empty() {
        lines.push("# Each of these files holds a secret; or LoadCredentialEncrypted= (systemd-creds(1)).".to_owned());
    }
    // The whole value is one word, and no quotes are taken off it.
    lines
        .extend(names.iter().map(|name| format!("LoadCredential={}", escape(&format!("{name}:{folder}/{name}"), "%"))));
    lines
}

fn credential_names(plan: &Plan) -> Vec<&str> {
    let needed = plan.needed_secrets();
    let names = needed.iter().filter_map(|id| match &plan.secret(*id).source {
        Source::Credential(name) => Some(name.as_str()),
        _ => None,
    });
    names.collect()
}

fn capabilities(needs: Needs) -> String {
    let all = [
        (needs.users || needs.other_users, " CAP_SETUID CAP_SETGID CAP_KILL"),
        (needs.owners || needs.other_users, " CAP_CHOWN"),
        (needs.owners, " CAP_FSETID"),
    ];
    let needed = all.iter().filter(|(needed, _)| *needed).map(|(_, names)| *names);
    std::iter::once(CAPABILITIES).chain(needed).collect()
}

fn system_calls(needs: Needs) -> Option<String> {
    let all = [
        (needs.users || needs.other_users, "@setuid setgroups setgroups32"),
        // A launcher gives up its capabilities and gives its pipes away.
        (needs.other_users, "capset fchown"),
        (needs.owners, "@chown"),
        (needs.priorities, "@resources"),
    ];
    let needed: Vec<&str> = all.iter().filter(|(needed, _)| *needed).map(|(_, names)| *names).collect();
    (!needed.is_empty()).then(|| needed.join(" "))
}

/// A word of a setting that is split at blanks (systemd.syntax(7)).
fn quote(text: &str) -> String {
    format!("\"{}\"", escape(text, "%"))
}

/// A word of a command line, where `$` would begin a variable (systemd.service(5)).
fn quote_word(text: &str) -> String {
    format!("\"{}\"", escape(text, "%$"))
}

/// `doubled` are the characters that stand for themselves when written twice.
fn escape(text: &str, doubled: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\\' => escaped.push('\\'),
            c if doubled.contains(c) => escaped.push(c),
            _ => {}
        }
        escaped.push(c);
    }
    escaped
}

/// Where the unit goes and which commands start it.
pub fn advice(plan: &Plan, facts: &Facts, scope: Scope, is_root: bool) -> String {
    let (file, option, sudo) = match scope {
        Scope::System => ("/etc/systemd/system/backupnizza.service".to_owned(), "", if is_root { "" } else { "sudo " }),
        Scope::User => {
            (facts.home.join(".config/systemd/user/backupnizza.service").display().to_string(), " --user", "")
        }
    };
    let mut advice = format!("This goes to {file}; then\n\n");
    for name in credential_names(plan) {
        advice.push_str(&format!(
            "  # the secret {name} goes into the file of its LoadCredential= line, readable by its owner only\n"
        ));
    }
    advice.push_str(&format!(
        "  {sudo}systemctl{option} daemon-reload\n  {sudo}systemctl{option} enable --now backupnizza\n  {sudo}journalctl{option} -u backupnizza -f\n"
    ));
    if scope == Scope::User {
        advice.push_str("  loginctl enable-linger    # to run also while you are not logged in\n");
    } else {
        advice.push_str("\nIt runs as root, so the configuration and all programs have to belong to root.\n");
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::super::tests::{facts, plan};
    use super::*;

    const PLAIN: &str = "tasks: [{name: t, command: [restic, backup, /home]}]";

    #[test]
    fn blanks_and_specifiers_are_escaped() {
        let unit = system_unit(&plan(PLAIN), &facts());
        assert!(unit.contains("\nExecStart=\"/usr/local/bin/backupnizza\" \"/etc/my backups/100%%.yaml\"\n"), "{unit}");
        assert!(unit.contains("\nEnvironment=\"PATH=/opt/my tools:/usr/bin\"\n"), "{unit}");
        assert_eq!(quote_word(r#"a "b" \ $c"#), r#""a \"b\" \\ $$c""#);
        assert_eq!(quote("$c"), "\"$c\"");
    }

    #[test]
    fn restic_runs_in_the_tightest_sandbox() {
        let unit = system_unit(&plan(PLAIN), &facts());
        assert!(unit.contains("CapabilityBoundingSet=CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER\n"), "{unit}");
        assert!(unit.contains("StateDirectory=backupnizza\n") && unit.contains("RestrictSUIDSGID=yes\n"), "{unit}");
        assert!(!unit.contains('{') && !unit.contains("LoadCredential="), "{unit}");
        assert_eq!(unit.matches("SystemCallFilter=").count(), 3, "two of them and a mention: {unit}");
    }

    #[test]
    fn other_commands_get_what_they_need() {
        let unit = system_unit(
            &plan("tasks: [{name: t, command: [nice, rsync, -a, /srv, /mnt]}, {name: u, command: [rsync, a, b]}]"),
            &facts(),
        );
        assert!(unit.contains(" CAP_CHOWN CAP_FSETID\n") && unit.contains("RestrictSUIDSGID=no\n"), "{unit}");
        assert!(unit.contains("SystemCallFilter=@chown @resources\n"), "{unit}");
    }

    #[test]
    fn each_credential_has_its_line() {
        let plan = plan(&format!("secrets: [{{name: a, credential: rest-password}}]\n{PLAIN}"));
        let line = "LoadCredential=rest-password:/etc/credstore/rest-password\n";
        assert!(system_unit(&plan, &facts()).contains(line));
        let line = "LoadCredential=rest-password:/root/.config/credstore/rest-password\n";
        assert!(user_unit(&plan, &facts()).contains(line));
    }

    #[test]
    fn a_state_folder_of_ones_own_is_made_and_writable() {
        let unit = system_unit(&plan(&format!("state_dir: /srv/my state\n{PLAIN}")), &facts());
        assert!(!unit.contains("StateDirectory="), "{unit}");
        assert!(unit.contains("ExecStartPre=+/bin/mkdir -p -m 0700 \"/root/.cache\" \"/srv/my state\"\n"), "{unit}");
        assert!(unit.contains("ReadWritePaths=\"-/srv/my state\"\n"), "{unit}");
    }

    #[test]
    fn the_advice_names_the_file_and_the_commands() {
        let system = advice(&plan(PLAIN), &facts(), Scope::System, false);
        assert!(system.contains("/etc/systemd/system/backupnizza.service"), "{system}");
        assert!(system.contains("sudo systemctl enable --now backupnizza"), "{system}");
        let user = advice(&plan(PLAIN), &facts(), Scope::User, false);
        assert!(user.contains("/root/.config/systemd/user/backupnizza.service"), "{user}");
        assert!(user.contains("systemctl --user enable --now backupnizza") && user.contains("enable-linger"), "{user}");
    }
}
