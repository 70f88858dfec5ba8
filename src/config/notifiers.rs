//! `[notifier.NAME]` tables: as in a job file, `kind` picks who reads the keys that are not shared.
use std::collections::BTreeMap;

use serde::Deserialize as _;
use toml::Spanned;

use super::{
    explain::Known,
    mistake::{Problem, suggest},
    read::{self, Found, Table},
    schema,
    settings::check_name,
};
use crate::notify::{
    self, NOTIFIERS,
    settings::{Common, KEYS, NotifierSettings},
};

/// The table of all of them.
pub(super) const TABLE: &str = "notifier";

/// Takes the notifiers out of the settings' table and reads them.
pub(super) fn take(table: &mut Table<'_>, found: &mut Vec<Found>) -> BTreeMap<String, NotifierSettings> {
    let mut notifiers = BTreeMap::new();
    let all =
        table.get_ref().iter().find(|(key, _)| key.get_ref() == TABLE).map(|(key, all)| (key.clone(), all.clone()));
    let Some((key, all)) = all else { return notifiers };
    table.get_mut().remove(&key);
    let hint = "write `[notifier.feed]`, with a `kind` below it";
    let Some(all_named) = all.get_ref().as_table() else {
        let problem = Problem::new("", "a notifier is a table with a name").hint(hint);
        found.push(Found { at: all.span(), problem });
        return notifiers;
    };
    for (name, own) in all_named {
        if let Some(problem) = check_name("", name.get_ref(), "notifier") {
            found.push(Found { at: name.span(), problem });
        }
        let Some(own_table) = own.get_ref().as_table() else {
            let message = format!("`{}` is no table, and a notifier is one", name.get_ref());
            found.push(Found { at: own.span(), problem: Problem::new("", message).hint(hint) });
            continue;
        };
        let own = Spanned::new(name.span(), own_table.clone());
        if let Some(settings) = read(&own, found) {
            notifiers.insert(name.get_ref().to_string(), settings);
        }
    }
    notifiers
}

fn read(table: &Table<'_>, found: &mut Vec<Found>) -> Option<NotifierSettings> {
    let (mut common, mut own) = (table.clone(), table.clone());
    for key in table.get_ref().keys() {
        let other = if KEYS.contains(&&**key.get_ref()) { &mut own } else { &mut common };
        other.get_mut().remove(key);
    }
    let known = Known { also: &[], whose: "", top: &Vec::new, help: "" };
    let mut common = read::read(common, |keys| Common::deserialize(keys), &known, found);
    let keys = common.value.take()?;
    let names: Vec<&str> = NOTIFIERS.iter().map(|entry| entry.name).collect();
    let Some(kind) = &keys.kind else {
        if !common.was_wrong("kind") {
            let hint = format!("say which service it is: {}", suggest("", &names, "`kind` is one of"));
            found.push(Found { at: table.span(), problem: Problem::new("", "the key `kind` is missing").hint(hint) });
        }
        return None;
    };
    let Some(entry) = notify::find(kind) else {
        let problem = Problem::new("kind", format!("there is no notifier of the kind `{kind}`"));
        found.extend(common.place(vec![problem.hint(suggest(kind, &names, "the kinds are"))]));
        return None;
    };
    let top = || schema::top_keys(&schema::of_notifier(entry));
    let help = format!("docs/notifiers.md shows a `{}` with all its keys", entry.name);
    let mut own =
        read::read(own, entry.parse, &Known { also: &KEYS, whose: "notifier", top: &top, help: &help }, found);
    let notifier = own.value.take()?;
    found.extend(own.place(notifier.check()));
    Some(NotifierSettings { kind: entry.name, common: keys, notifier })
}
