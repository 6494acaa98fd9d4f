//! The conditions that README.md shows, taken from there: each holds when it should and not otherwise. Tools that this
//! machine cannot have (macOS's, NetworkManager's) are stand-ins that print what those are documented to print.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use crate::harness::{Sandbox, finish, needs};

const README: &str = include_str!("../../README.md");

/// The recipes in README's table of conditions, those for Linux and for macOS, of the row that begins with `row`.
fn recipes(row: &str) -> [Vec<String>; 2] {
    let (_, section) = README.split_once("\n### conditions\n").expect("the conditions");
    let (table, _) = section.split_once("\n### ").expect("another section");
    let line = table.lines().find(|line| line.starts_with(&format!("| {row} |"))).expect("a row");
    let cells: Vec<String> = line.replace("\\|", "\0").split('|').map(|cell| cell.replace('\0', "|")).collect();
    let in_backticks = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    [in_backticks(&cells[2]), in_backticks(&cells[3])]
}

/// The words of a recipe, with `from` replaced by `to`.
fn words(recipe: &str, from: &str, to: &str) -> Vec<String> {
    assert!(recipe.contains(from), "{recipe} has no {from}");
    serde_yaml::from_str(&recipe.replace(from, to)).expect("a list in YAML")
}

fn holds(sandbox: &Sandbox, words: &[String]) -> bool {
    let mut command = sandbox.command(&words[0]);
    command.args(&words[1..]);
    finish(command).status == 0
}

/// A tool that prints `output` if it is called with these arguments, and fails otherwise.
fn stand_in(sandbox: &Sandbox, name: &str, arguments: &str, output: &str) {
    let script = format!("#!/bin/sh\n[ \"$*\" = '{arguments}' ] || exit 64\ncat <<'END'\n{output}\nEND\n");
    sandbox.script(&format!("bin/{name}"), &script);
}

#[test]
fn all_of_them_are_good_configuration() {
    let sandbox = Sandbox::new();
    for row in [
        "on mains power",
        "where data costs nothing",
        "on a named network",
        "with the drive there",
        "if a host answers",
    ] {
        for recipe in recipes(row).iter().flatten() {
            sandbox.config(&format!(
                "tasks: [{{name: t, schedule: \"@daily\", command: [echo], run_anyway_after: 7d, only_if: {recipe}}}]"
            ));
            finish(sandbox.backupnizza(["check", "backup.yaml", "--offline"])).expect(0);
        }
    }
}

#[test]
fn on_mains_power() {
    let sandbox = Sandbox::new();
    let [linux, macos] = recipes("on mains power");
    let folder = sandbox.path("power");
    let linux = words(&linux[0], "/sys/class/power_supply", folder.to_str().expect("text").replace(' ', "?").as_str());
    assert!(holds(&sandbox, &linux), "a machine without a battery");
    sandbox.write("power/AC/online", "1\n");
    // The mouse runs on batteries wherever the computer is.
    sandbox.write("power/hidpp_battery_0/status", "Discharging\n");
    for (status, expected) in
        [("Charging", true), ("Full", true), ("Not charging", true), ("Unknown", true), ("Discharging", false)]
    {
        sandbox.write("power/BAT0/status", format!("{status}\n"));
        assert_eq!(holds(&sandbox, &linux), expected, "{status}");
    }
    let macos = words(&macos[0], "pmset", "pmset");
    for (source, expected) in [("AC Power", true), ("Battery Power", false), ("UPS Power", false)] {
        let battery = " -InternalBattery-0 (id=4653155)\t95%; charging; 0:24 remaining present: true";
        stand_in(&sandbox, "pmset", "-g batt", &format!("Now drawing from '{source}'\n{battery}"));
        assert_eq!(holds(&sandbox, &macos), expected, "{source}");
    }
}

#[test]
fn where_data_costs_nothing() {
    let sandbox = Sandbox::new();
    let [linux, _] = recipes("where data costs nothing");
    let linux = words(&linux[0], "busctl", "busctl");
    // NMMetered: unknown, yes, no, guess-yes, guess-no.
    for (metered, expected) in [(0, false), (1, false), (2, true), (3, false), (4, true)] {
        let arguments = "get-property org.freedesktop.NetworkManager /org/freedesktop/NetworkManager \
                         org.freedesktop.NetworkManager Metered";
        stand_in(&sandbox, "busctl", arguments, &format!("u {metered}"));
        assert_eq!(holds(&sandbox, &linux), expected, "{metered}");
    }
}

#[test]
fn on_a_named_network() {
    let sandbox = Sandbox::new();
    let [linux, macos] = recipes("on a named network");
    let linux = words(&linux[0], "home", "home");
    for (active, expected) in [("home\nlo", true), ("homestead\nlo", false), ("my home", false), ("lo", false)] {
        stand_in(&sandbox, "nmcli", "-t -f NAME connection show --active", active);
        assert_eq!(holds(&sandbox, &linux), expected, "{active}");
    }
    let macos = words(&macos[0], "192.168.7.1", "192.168.7.1");
    for (gateway, expected) in [("192.168.7.1", true), ("192.168.7.15", false), ("10.0.0.1", false)] {
        let route = format!(
            "   route to: default\ndestination: default\n       mask: default\n    gateway: {gateway}\n  interface: en0"
        );
        stand_in(&sandbox, "route", "-n get default", &route);
        assert_eq!(holds(&sandbox, &macos), expected, "{gateway}");
    }
}

#[test]
fn with_the_drive_there() {
    let sandbox = Sandbox::new();
    let [linux, macos] = recipes("with the drive there");
    if needs("mountpoint") {
        assert!(holds(&sandbox, &words(&linux[0], "/mnt/disk", "/proc")));
        assert!(!holds(&sandbox, &words(&linux[0], "/mnt/disk", "/usr/share")));
        assert!(!holds(&sandbox, &words(&linux[0], "/mnt/disk", "/not there")));
    }
    let macos = words(&macos[0], "/Volumes/Disk", "/Volumes/Disk");
    let system = "/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)";
    for (line, expected) in [
        ("/dev/disk4s2 on /Volumes/Disk (apfs, local, nodev, nosuid, journaled, noowners)", true),
        ("/dev/disk4s2 on /Volumes/Disk 1 (apfs, local, nodev, nosuid, journaled, noowners)", false),
        ("map auto_home on /System/Volumes/Data/home (autofs, automounted, nobrowse)", false),
    ] {
        stand_in(&sandbox, "mount", "", &format!("{system}\n{line}"));
        assert_eq!(holds(&sandbox, &macos), expected, "{line}");
    }
}

#[test]
fn if_a_host_answers() {
    let sandbox = Sandbox::new();
    let [recipes, _] = recipes("if a host answers");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("a port").port();
    // Nobody listens at a port that was just given back.
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|other| other.local_addr()).expect("a port").port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0; 512];
            let length = stream.read(&mut request).unwrap_or(0);
            let status = if request[..length].starts_with(b"GET / ") { "200 OK" } else { "503 Not Today" };
            let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    if needs("curl") {
        let url = |port: u16, path: &str| {
            words(&recipes[0], "https://backup.example.org/", &format!("http://127.0.0.1:{port}/{path}"))
        };
        assert!(holds(&sandbox, &url(port, "")));
        assert!(!holds(&sandbox, &url(port, "down")), "an error is no answer");
        assert!(!holds(&sandbox, &url(closed, "")));
    }
    if needs("nc") {
        let host = |port: u16| words(&recipes[1], "nas, 22", &format!("127.0.0.1, \"{port}\""));
        assert!(holds(&sandbox, &host(port)));
        assert!(!holds(&sandbox, &host(closed)));
    }
}
