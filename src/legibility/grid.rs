//! Places in rows, such as the blocks of a picture.

/// The groups of set places that touch, corners included. There are `across` places in a row.
pub(super) fn groups(set: &[bool], across: usize) -> Vec<Vec<usize>> {
    let mut left = set.to_vec();
    let mut groups = Vec::new();
    for first in 0..left.len() {
        if std::mem::take(&mut left[first]) {
            groups.push(group(first, &mut left, across));
        }
    }
    groups
}

/// The group of a place. Takes its other places from those that are left.
fn group(first: usize, left: &mut [bool], across: usize) -> Vec<usize> {
    let down = left.len() / across;
    let mut members = vec![first];
    let mut next = 0;
    while let Some(member) = members.get(next) {
        let (x, y) = (member % across, member / across);
        for y in y.saturating_sub(1)..(y + 2).min(down) {
            for x in x.saturating_sub(1)..(x + 2).min(across) {
                let neighbour = y * across + x;
                if std::mem::take(&mut left[neighbour]) {
                    members.push(neighbour);
                }
            }
        }
        next += 1;
    }
    members
}

/// The set places in groups of at least so many.
pub(super) fn large_groups(set: &[bool], across: usize, least: usize) -> Vec<usize> {
    let groups = groups(set, across).into_iter();
    groups.filter(|group| group.len() >= least).flatten().collect()
}
