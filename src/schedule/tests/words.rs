//! Lines in words: each by hand, and no two that differ sound alike.
use std::collections::HashMap;

use super::*;

#[test]
fn schedules_are_said_in_words() {
    for (line, words) in [
        ("* * * * *", "every minute"),
        ("*/5 * * * *", "every 5 minutes"),
        ("*/30 * * * *", "every 30 minutes"),
        ("*/7 * * * *", "every 7 minutes from minute 0 to 56 of each hour"),
        ("3-59/5 * * * *", "every 5 minutes from minute 3 to 58 of each hour"),
        ("3,18,33,48 * * * *", "at 3, 18, 33 and 48 minutes past each hour"),
        ("H/15 * * * *", "at 12, 27, 42 and 57 minutes past each hour"),
        ("H * * * *", "every hour at 12 minutes past"),
        ("0 * * * *", "every hour"),
        ("1 * * * *", "every hour at 1 minute past"),
        ("15 * * * *", "every hour at 15 minutes past"),
        ("0,30 * * * *", "every 30 minutes"),
        ("5,20 * * * *", "at 5 and 20 minutes past each hour"),
        ("10-20 * * * *", "every minute from minute 10 to 20 of each hour"),
        ("* 2 * * *", "every minute between 02:00 and 02:59"),
        ("*/5 2 * * *", "every 5 minutes between 02:00 and 02:59"),
        ("*/20 2 * * *", "every day at 02:00, 02:20 and 02:40"),
        ("*/7 2 * * *", "every 7 minutes between 02:00 and 02:56"),
        ("10-20 2 * * *", "every minute between 02:10 and 02:20"),
        ("10-30/2 2 * * *", "every 2 minutes between 02:10 and 02:30"),
        ("0,10,15 2 * * *", "every day at 02:00, 02:10 and 02:15"),
        ("0,1,3,7,12,31,50 2 * * *", "at 0, 1, 3, 7, 12, 31 and 50 minutes past 02:00"),
        ("* 1-3 * * *", "every minute between 01:00 and 03:59"),
        ("*/5 9-17 * * 1-5", "every 5 minutes between 09:00 and 17:59, Monday to Friday"),
        ("0,30 9-17 * * 1-5", "every 30 minutes between 09:00 and 17:59, Monday to Friday"),
        ("0,20 9-17 * * 1-5", "at 0 and 20 minutes past each hour from 09:00 to 17:00, Monday to Friday"),
        ("2-59/5 9-17 * * *", "every 5 minutes between 09:02 and 17:57"),
        ("*/7 9-17 * * *", "every 7 minutes from minute 0 to 56 of each hour between 09:00 and 17:59"),
        ("0 9-17 * * *", "every hour from 09:00 to 17:00"),
        ("15 9-11 * * *", "every day at 09:15, 10:15 and 11:15"),
        ("0 */2 * * *", "every 2 hours from 00:00 to 22:00"),
        ("15 */2 * * *", "every 2 hours from 00:15 to 22:15"),
        ("0 */6 * * *", "every day at 00:00, 06:00, 12:00 and 18:00"),
        ("0 */5 * * *", "every 5 hours from 00:00 to 20:00"),
        ("15 8-18/2 * * *", "every 2 hours from 08:15 to 18:15"),
        ("*/5 */2 * * *", "every 5 minutes in every 2nd hour from 00:00 to 22:59"),
        ("*/15 */6 * * *", "every 15 minutes in the hours beginning at 00:00, 06:00, 12:00 and 18:00"),
        ("* 1,13 * * *", "every minute in the hours beginning at 01:00 and 13:00"),
        ("10-20 1,13 * * *", "every minute from minute 10 to 20 of the hours beginning at 01:00 and 13:00"),
        ("10,20 */2 * * *", "at 10 and 20 minutes past every 2nd hour from 00:00 to 22:00"),
        ("0,7,20 1,5,13,14 * * *", "at 0, 7 and 20 minutes past 01:00, 05:00, 13:00 and 14:00"),
        ("15 3 * * *", "every day at 03:15"),
        ("30 1,13 * * *", "every day at 01:30 and 13:30"),
        ("0 9-12,14-17 * * *", "every day at 09:00, 10:00, 11:00, 12:00, 14:00, 15:00, 16:00 and 17:00"),
        ("0,30 1,2 * * *", "every day at 01:00, 01:30, 02:00 and 02:30"),
        ("0,30 1,2,3 * * *", "every 30 minutes between 01:00 and 03:59"),
        ("0 9 * * 1-5", "every Monday to Friday at 09:00"),
        ("0 9 * * sat,sun", "every Saturday and Sunday at 09:00"),
        ("0 9 * * 0,1,5,6", "every Friday to Monday at 09:00"),
        ("0 9 * * 5-7", "every Friday to Sunday at 09:00"),
        ("0 9 * * 1", "every Monday at 09:00"),
        ("0 9 * * 1,3,5", "every Monday, Wednesday and Friday at 09:00"),
        ("0 9 * * */2", "every Tuesday, Thursday, Saturday and Sunday at 09:00"),
        ("0 9 * * 0-6", "every day at 09:00"),
        ("0 4 1 * *", "on day 1 of each month at 04:00"),
        ("0 4 1,15 * *", "on days 1 and 15 of each month at 04:00"),
        ("0 4 1-7 * *", "on days 1 to 7 of each month at 04:00"),
        ("0 4 */2 * *", "on every 2nd day from 1 to 31 of each month at 04:00"),
        ("0 4 1,2,5,9 * *", "on days 1, 2, 5 and 9 of each month at 04:00"),
        ("0 4 L * *", "on the last day of each month at 04:00"),
        ("0 4 LW * *", "on the last working day of each month at 04:00"),
        ("0 4 15W * *", "on the working day nearest to day 15 of each month at 04:00"),
        ("0 4 1,L * *", "on day 1 and the last day of each month at 04:00"),
        ("0 4 1W,15 * *", "on day 15 and the working day nearest to day 1 of each month at 04:00"),
        ("0 4 * * FRI#2", "on the second Friday of each month at 04:00"),
        ("0 4 * * 5L", "on the last Friday of each month at 04:00"),
        ("0 4 * * MON,FRI#2", "on the second Friday of each month and every Monday at 04:00"),
        ("0 4 * * MON#1,FRI#3", "on the first Monday and the third Friday of each month at 04:00"),
        ("0 2 13 * FRI", "on day 13 of each month and every Friday at 02:00"),
        ("0 2 13 * +FRI", "on day 13 of each month, if it is a Friday, at 02:00"),
        (
            "0 2 1-7 * +MON-FRI",
            "on days 1 to 7 of each month, if it is a Monday, Tuesday, Wednesday, Thursday or Friday, at 02:00",
        ),
        ("0 2 13 * +FRI#2", "on day 13 of each month, if it is the second Friday, at 02:00"),
        ("0 2 13 * FRI#1", "on day 13 and the first Friday of each month at 02:00"),
        ("0 2 13 1,7 FRI", "on day 13 and every Friday in January and July at 02:00"),
        ("0 3 * 1 *", "every day in January at 03:00"),
        ("0 3 * 3-10 *", "every day from March to October at 03:00"),
        ("0 3 * 1,7 *", "every day in January and July at 03:00"),
        ("0 3 1 */3 *", "on day 1 of January, April, July and October at 03:00"),
        ("0 3 1 3-10 *", "on day 1 of each month from March to October at 03:00"),
        ("0 3 * 6 MON", "every Monday in June at 03:00"),
        ("0 3 * 6-8 MON-FRI", "every Monday to Friday from June to August at 03:00"),
        ("*/5 9-17 * 6-8 *", "every 5 minutes between 09:00 and 17:59, from June to August"),
        ("*/5 9-17 * 6 *", "every 5 minutes between 09:00 and 17:59, in June"),
        ("*/5 9-17 * 6-8 MON-FRI", "every 5 minutes between 09:00 and 17:59, Monday to Friday from June to August"),
        ("*/5 9-17 * * SUN", "every 5 minutes between 09:00 and 17:59, on Sundays"),
        ("*/5 9-17 * * SAT,SUN", "every 5 minutes between 09:00 and 17:59, on Saturdays and Sundays"),
        ("*/5 9-17 1 * *", "every 5 minutes between 09:00 and 17:59, on day 1 of each month"),
        ("*/5 9-17 L * FRI", "every 5 minutes between 09:00 and 17:59, on the last day of each month and every Friday"),
        ("0 9-17 * * 1-5", "every hour from 09:00 to 17:00, Monday to Friday"),
        ("0 2 * 3,10 SUN#2", "on the second Sunday of March and October at 02:00"),
        ("* * * * MON", "every minute, on Mondays"),
        ("* * 1 1 *", "every minute, on day 1 of January"),
        ("* * * * * *", "every second"),
        ("*/10 * * * * *", "every 10 seconds"),
        ("*/7 * * * * *", "every minute, at every 7th second from 0 to 56"),
        ("30 * * * * *", "every minute, at second 30"),
        ("0 */5 * * * *", "every 5 minutes"),
        ("30 */5 * * * *", "every 5 minutes, at second 30"),
        ("0 30 4 * * *", "every day at 04:30"),
        ("15 30 4 * * *", "every day at 04:30:15"),
        ("0,30 30 4 * * *", "every day at 04:30:00 and 04:30:30"),
        ("10,20,40 */5 9-17 * * *", "every 5 minutes between 09:00 and 17:59, at seconds 10, 20 and 40"),
        ("* */15 * * * *", "every second in minutes 0, 15, 30 and 45 of each hour"),
        ("* 30 2 * * *", "every second between 02:30:00 and 02:30:59"),
        ("*/5 30 2 * * *", "every 5 seconds between 02:30:00 and 02:30:59"),
        ("* 10-20 2 * * *", "every second between 02:10:00 and 02:20:59"),
        ("* * 2-3 * * *", "every second between 02:00:00 and 03:59:59"),
        ("*/10 */5 2 * * *", "every 10 seconds in every 5th minute from 0 to 55 of the hour beginning at 02:00"),
        ("*/10 * 2 * * MON-FRI", "every 10 seconds between 02:00:00 and 02:59:59, Monday to Friday"),
        ("* 10-20 * * * *", "every second in minutes 10 to 20 of each hour"),
        ("* 30 * * * *", "every second in minute 30 of each hour"),
        ("5-55/10 0 3 * * *", "every day at 03:00:05, 03:00:15, 03:00:25, 03:00:35, 03:00:45 and 03:00:55"),
        ("* * 1,13 * * *", "every second in the hours beginning at 01:00 and 13:00"),
        ("@hourly", "every hour"),
        ("@daily", "every day at 00:00"),
        ("@midnight", "every day at 00:00"),
        ("@weekly", "every Sunday at 00:00"),
        ("@monthly", "on day 1 of each month at 00:00"),
        ("@yearly", "on day 1 of January at 00:00"),
        ("@every 90m", "every 90 minutes"),
        ("@every 6h", "every 6 hours"),
        ("@every 1h", "every hour"),
        ("@every 24h", "every 24 hours"),
        ("@every 7d", "every 7 days"),
        ("@every 45s", "every 45 seconds"),
        ("@every 1m", "every minute"),
        ("@every 1s", "every second"),
        ("@reboot", "once whenever Rusuban starts"),
        ("H H * * *", "every day at 09:12"),
        ("H(0-29)/10 3 * * THU", "every Thursday at 03:02, 03:12 and 03:22"),
        ("H H(1-4) H * *", "on day 26 of each month at 02:12"),
    ] {
        assert_eq!(schedule(line, chrono_tz::UTC).in_words(), words, "{line}");
    }
}

/// All that a line means: its times, and its days of a leap year and of the year after it.
fn meaning(times: &str, days: &str) -> (Vec<u16>, Vec<u16>, Vec<u16>, Vec<bool>) {
    let parse = |line: &str| Lines::parse(line, chrono_tz::UTC).unwrap();
    let of_times = parse(&format!("{times} * * *")).cron.pattern;
    let of_days = parse(&format!("0 12 {days}")).cron;
    let noon = Utc.with_ymd_and_hms(2028, 1, 1, 12, 0, 0).unwrap();
    let days = (0..731).map(|day| of_days.is_time_matching(&(noon + TimeDelta::days(day))).unwrap());
    (of_times.seconds.values(), of_times.minutes.values(), of_times.hours.values(), days.collect())
}

#[test]
fn no_two_lines_that_differ_sound_alike() {
    let seconds = ["", "0 ", "* ", "*/10 ", "5-55/10 ", "30 ", "0,30 ", "1,2,4,8,9,20,40 "];
    let minutes =
        ["*", "0", "1", "15", "*/5", "*/7", "2-59/5", "*/20", "5,20", "10-20", "0,30", "0-58/2", "0,7,20,21,50,51,59"];
    let hours = ["*", "2", "0", "1-3", "9-17", "*/2", "*/5", "*/6", "1,13", "8-18/2", "1,2,5,6,13", "22,23"];
    let days_of_month = ["*", "1", "1,15", "1-7", "*/2", "1,2,5,9,30", "L", "LW", "15W", "1,L", "1-31"];
    let weekdays =
        ["*", "MON", "MON-FRI", "SAT,SUN", "0,1,5,6", "FRI#2", "5L", "MON,FRI#2", "+FRI", "+MON-FRI", "+FRI#2", "0-6"];
    let months = ["*", "1", "1,7", "3-10", "*/2"];
    let mut lines = Vec::new();
    for second in seconds {
        for minute in minutes {
            lines.extend(hours.map(|hour| (format!("{second}{minute} {hour}"), "* * *".to_owned())));
        }
    }
    for times in ["15 3", "*/5 9-17"] {
        for day in days_of_month {
            for weekday in weekdays {
                lines.extend(months.map(|month| (times.to_owned(), format!("{day} {month} {weekday}"))));
            }
        }
    }
    let (mut said, mut compared) = (HashMap::new(), 0);
    for (times, days) in lines {
        // Some never come, such as a first that is the second Friday.
        let line = format!("{times} {days}");
        let Ok(schedule) = Schedule::parse(&line, chrono_tz::UTC, &"photos".parse().unwrap()) else { continue };
        let words = schedule.in_words();
        let meaning = meaning(&times, &days);
        let (other, before) = said.entry(words.clone()).or_insert_with(|| (line.clone(), meaning.clone()));
        compared += 1;
        assert!(*before == meaning, "`{line}` and `{other}` are both {words:?}");
    }
    assert!(compared > 2000, "{compared}");
}
