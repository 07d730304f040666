//! Disjoint sets (union-find) of numbered things.

/// Sets of things that are numbered from zero.
#[derive(Default)]
pub(super) struct Forest {
    parents: Vec<u32>,
}

impl Forest {
    /// Adds a set of one thing, and returns its number.
    pub(super) fn add(&mut self) -> u32 {
        let number = u32::try_from(self.parents.len()).unwrap_or(u32::MAX);
        self.parents.push(number);
        number
    }

    /// The thing that stands for the set of a thing.
    pub(super) fn root(&mut self, mut thing: u32) -> u32 {
        loop {
            let parent = self.parents[thing as usize];
            if parent == thing {
                return thing;
            }
            // Halves the way for the next time.
            let grandparent = self.parents[parent as usize];
            self.parents[thing as usize] = grandparent;
            thing = grandparent;
        }
    }

    /// Unites two sets. `root` stands for both, and must be a root, as `other` must.
    pub(super) fn unite(&mut self, root: u32, other: u32) {
        self.parents[other as usize] = root;
    }
}
