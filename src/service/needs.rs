//! What a plan's commands have to be allowed beyond reading everything, by the programs they name.
//!
//! A guess from names, as far as it goes: what a script does inside is not seen. It makes the
//! common cases work; the service file says how to allow more.

use std::path::Path;

use super::enabled;
use crate::plan::{Plan, Step};

/// They run something as another user.
const CHANGE_USERS: [&str; 6] = ["su", "runuser", "setpriv", "doas", "gosu", "chpst"];
/// They change how much of the machine something gets.
const CHANGE_PRIORITIES: [&str; 5] = ["nice", "renice", "ionice", "chrt", "taskset"];
/// They keep the owners of the files that they write.
const KEEP_OWNERS: [&str; 4] = ["rsync", "cp", "install", "chown"];
/// They put mail into a queue.
const SEND_MAIL: [&str; 4] = ["sendmail", "mail", "mailx", "s-nail"];

/// What to leave open in a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Tasks have a `user`.
    pub other_users: bool,
    pub users: bool,
    pub priorities: bool,
    pub owners: bool,
    pub mail: bool,
}

impl Needs {
    pub fn of(plan: &Plan) -> Needs {
        let steps: Vec<&Step> = enabled(plan).flat_map(|task| task.commands()).collect();
        let mention = |names: &[&str]| steps.iter().any(|step| mentions(plan, step, names));
        Needs {
            other_users: steps.iter().any(|step| step.user.is_some()),
            users: mention(&CHANGE_USERS),
            priorities: mention(&CHANGE_PRIORITIES),
            owners: steps.iter().any(|step| KEEP_OWNERS.contains(&program(plan, step))),
            mail: mention(&SEND_MAIL),
        }
    }
}

fn program<'a>(plan: &'a Plan, step: &Step) -> &'a str {
    let name = &plan.program(step.program).name;
    Path::new(name).file_name().and_then(|name| name.to_str()).unwrap_or(name)
}

/// Whether the command is one of these, or has one of them as a word of its arguments, which may be
/// a script or another command.
fn mentions(plan: &Plan, step: &Step, names: &[&str]) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '=' | '@');
    let words = step.arguments.iter().flat_map(|argument| argument.split(|c| !is_part(c)));
    names.contains(&program(plan, step)) || words.into_iter().any(|word| names.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::super::tests::plan;
    use super::*;

    fn needs(command: &str) -> Needs {
        Needs::of(&plan(&format!("tasks: [{{name: t, command: {command}}}]")))
    }

    #[test]
    fn restic_needs_nothing_more() {
        let nothing = Needs { other_users: false, users: false, priorities: false, owners: false, mail: false };
        assert_eq!(needs("[restic, backup, /home/nice-photos, --tag=mail]"), nothing);
        assert_eq!(needs("[sh, -c, 'tar -cz /etc | gpg -c > /mnt/a']"), nothing);
    }

    #[test]
    fn a_task_with_a_user_needs_to_become_that_user() {
        let plan = plan("tasks: [{name: t, user: me, command: [restic, check]}]");
        assert!(Needs::of(&plan).other_users);
    }

    #[test]
    fn a_command_is_known_by_its_name_and_by_the_words_of_its_script() {
        assert!(needs("[nice, -n, '19', restic, check]").priorities);
        assert!(needs("[sh, -c, 'runuser -u postgres -- pg_dumpall > /var/backups/all']").users);
        assert!(needs("[/usr/bin/rsync, -a, /srv, /mnt]").owners);
        assert!(needs("[sh, -c, '/usr/sbin/sendmail root < note']").mail);
    }
}
