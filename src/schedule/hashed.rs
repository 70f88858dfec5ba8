//! `H`: a value drawn from the job's name, as in Jenkins, so that a hundred `H 3 * * *` do not start in the same minute.
use super::Wrong;
use crate::model::JobName;

/// The least and greatest value of each field of a five-field line. Days of the month end at 28, so that each month has them.
const FIELDS: [(u64, u64); 5] = [(0, 59), (0, 23), (1, 28), (1, 12), (0, 6)];

/// The line with each `H`, `H/15` and `H(0-29)/10` filled in.
pub(super) fn fill(line: &str, job: &JobName) -> Result<String, Wrong> {
    if !line.contains('H') {
        return Ok(line.to_owned());
    }
    let fields: Vec<&str> = line.split_whitespace().collect();
    // With six fields, the first is the second.
    let seconds = fields.len().saturating_sub(5);
    let mut filled = Vec::with_capacity(fields.len());
    for (index, field) in fields.iter().enumerate() {
        let bounds = match index.checked_sub(seconds) {
            Some(place) => FIELDS.get(place).copied(),
            None => Some((0, 59)),
        };
        let Some(bounds) = bounds else { return Ok(line.to_owned()) };
        let parts: Result<Vec<String>, Wrong> =
            field.split(',').map(|part| fill_part(part, bounds, hash(job, index))).collect();
        filled.push(parts?.join(","));
    }
    Ok(filled.join(" "))
}

fn fill_part(part: &str, (mut least, mut greatest): (u64, u64), hash: u64) -> Result<String, Wrong> {
    // Names such as THU hold an H that is none of ours.
    let Some(rest) = part.strip_prefix('H') else { return Ok(part.to_owned()) };
    let wrong = || Wrong::new(format!("`{part}` cannot be read"), "write `H`, `H/15`, `H(0-29)` or `H(0-29)/10`");
    let (range, step) = match rest.split_once('/') {
        Some((range, step)) => (range, Some(step.parse::<u64>().ok().filter(|step| *step > 0).ok_or_else(wrong)?)),
        None => (rest, None),
    };
    if !range.is_empty() {
        let inner = range.strip_prefix('(').and_then(|range| range.strip_suffix(')')).ok_or_else(wrong)?;
        let (from, to) = inner.split_once('-').ok_or_else(wrong)?;
        let (from, to) = (from.parse().map_err(|_| wrong())?, to.parse().map_err(|_| wrong())?);
        if from > to || from < least || to > greatest {
            return Err(Wrong::new(
                format!("`{part}` is out of range"),
                format!("the values go from {least} to {greatest}"),
            ));
        }
        (least, greatest) = (from, to);
    }
    let width = greatest - least + 1;
    match step {
        None => Ok((least + hash % width).to_string()),
        Some(step) if step > width => {
            Err(Wrong::new(format!("`{part}` steps further than the field is wide"), "choose a smaller step"))
        }
        Some(step) => {
            let values = (least + hash % step..=greatest).step_by(usize::try_from(step).map_err(|_| wrong())?);
            Ok(values.map(|value| value.to_string()).collect::<Vec<_>>().join(","))
        }
    }
}

/// FNV-1a with a final mix: the same on every machine and in every version.
fn hash(job: &JobName, field: usize) -> u64 {
    let hash = job
        .as_str()
        .bytes()
        .chain([0, u8::try_from(field).unwrap_or(u8::MAX)])
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}
