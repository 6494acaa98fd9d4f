//! A property list for launchd: launchd.plist(5).

use super::Facts;
use super::template::fill;

/// The agent of one user's login session.
pub fn agent(facts: &Facts) -> String {
    let string = |text: &str| format!("<string>{}</string>", escape(text));
    let variables = facts.variables.iter().map(|(name, value)| format!("<key>{}</key>{}", escape(name), string(value)));
    let values = [
        ("arguments", vec![string(&facts.program), string(&facts.config)]),
        ("variables", variables.collect()),
        ("stop_seconds", vec![facts.stop_seconds.to_string()]),
        ("log", vec![escape(&log(facts))]),
    ];
    fill(include_str!("agent.plist"), &values)
}

fn log(facts: &Facts) -> String {
    facts.home.join("Library/Logs/backupnizza.log").display().to_string()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Where the file goes and which commands start it.
pub fn advice(facts: &Facts) -> String {
    let file = facts.home.join("Library/LaunchAgents/backupnizza.plist");
    let file = file.display();
    format!(
        "This goes to {file}; then

  launchctl bootstrap gui/$(id -u) \"{file}\"
  tail -f \"{log}\"

`launchctl kickstart -k gui/$(id -u)/backupnizza` starts it anew, `launchctl bootout gui/$(id -u)/backupnizza` ends it.
Documents, Desktop, Mail and other disks need Full Disk Access for {program}.
",
        log = log(facts),
        program = facts.program,
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::facts;
    use super::*;

    #[test]
    fn what_means_something_to_xml_is_escaped() {
        let facts = Facts { config: "/Users/me/<a> & b.yaml".to_owned(), ..facts() };
        let agent = agent(&facts);
        assert!(agent.contains("    <string>/Users/me/&lt;a&gt; &amp; b.yaml</string>\n"), "{agent}");
        assert!(agent.contains("    <key>PATH</key><string>/opt/my tools:/usr/bin</string>\n"), "{agent}");
        assert!(agent.contains("<integer>40</integer>"), "{agent}");
        assert!(!agent.contains('{'), "{agent}");
    }
}
