//! A result by neurons cut to those that matter: of every row the k largest of each sign, and one `rest`, summed from
//! the neurons themselves. A neuron that one row keeps is a column for all rows, with its value at each.

use super::component::{Component, Kind, Unit};
use super::{Attribution, Options};
use crate::config::ModelConfig;

impl Attribution {
    /// Cuts the neurons as `options.top` says, where it says so.
    pub(crate) fn keep_top(&mut self, options: &Options, config: &ModelConfig) {
        let Some(k) = options.top else { return };
        let all = self.components.take().unwrap_or_else(|| Component::all(Unit::Neuron, config));
        let neurons: Vec<usize> = (0..all.len()).filter(|c| all[*c].kind == Kind::Neuron).collect();
        let mut is_kept: Vec<bool> = all.iter().map(|c| c.kind != Kind::Neuron).collect();
        for row in self.values.chunks_exact(all.len()) {
            strongest(row, &neurons, k).into_iter().for_each(|c| is_kept[c] = true);
        }
        let columns: Vec<usize> = (0..all.len()).filter(|c| is_kept[*c]).collect();
        let mut values = Vec::with_capacity(self.rows.len() * (columns.len() + 1));
        for row in self.values.chunks_exact(all.len()) {
            values.extend(columns.iter().map(|c| row[*c]));
            let rest: f64 = row.iter().zip(&is_kept).filter(|(_, kept)| !**kept).map(|(v, _)| f64::from(*v)).sum();
            values.push(rest as f32);
        }
        self.values = values;
        self.components = Some(columns.into_iter().map(|c| all[c]).chain([Component::REST]).collect());
    }
}

/// The k largest and the k smallest neurons of a row, in no order; of equal ones the first.
fn strongest(row: &[f32], neurons: &[usize], k: usize) -> Vec<usize> {
    if 2 * k >= neurons.len() {
        return neurons.to_vec();
    }
    // a number that sorts as the value does, and then by place: one comparison of integers each
    let keyed = |c: &usize| {
        let bits = row[*c].to_bits();
        let rising = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        (u64::from(rising) << 32) | *c as u64
    };
    let mut smallest: Vec<u64> = neurons.iter().map(keyed).collect();
    let mut largest: Vec<u64> = smallest.iter().map(|key| !(key >> 32) << 32 | (key & 0xffff_ffff)).collect();
    smallest.select_nth_unstable(k);
    largest.select_nth_unstable(k);
    smallest[..k].iter().chain(&largest[..k]).map(|key| (key & 0xffff_ffff) as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_of_each_sign_by_hand() {
        let row = [9.0, 1.0, -5.0, 3.0, 0.5, -0.25, 3.0, -9.0];
        let neurons = [1, 2, 3, 4, 5, 6];
        let mut found = strongest(&row, &neurons, 2);
        found.sort_unstable();
        assert_eq!(found, [2, 3, 5, 6]);
        let mut found = strongest(&row, &neurons, 1);
        found.sort_unstable();
        assert_eq!(found, [2, 3]);
        assert_eq!(strongest(&row, &neurons, 3).len(), 6);
        assert_eq!(strongest(&row, &neurons, 100).len(), 6);
    }
}
