//! Where well-known cloud regions are, so that their names need no location in the file.
//!
//! The providers name a metropolitan area and no address; a degree more or less moves no choice.
//! AWS, Google Cloud and Azure names; a name that two providers use means the same area.

use sealane_model::Location;

/// The location of a well-known region; hyphens only, lower case.
pub(super) fn well_known(name: &str) -> Option<Location> {
    let (_, latitude, longitude) = REGIONS.iter().find(|(known, ..)| *known == name)?;
    Location::new(*latitude, *longitude)
}

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    REGIONS.iter().map(|(name, ..)| *name)
}

const REGIONS: &[(&str, f32, f32)] = &[
    // AWS
    ("us-east-1", 39.04, -77.49),
    ("us-east-2", 39.96, -83.00),
    ("us-west-1", 37.35, -121.95),
    ("us-west-2", 45.84, -119.70),
    ("us-gov-east-1", 39.96, -83.00),
    ("us-gov-west-1", 45.84, -119.70),
    ("ca-central-1", 45.50, -73.57),
    ("ca-west-1", 51.05, -114.07),
    ("mx-central-1", 20.59, -100.39),
    ("sa-east-1", -23.55, -46.63),
    ("eu-central-1", 50.11, 8.68),
    ("eu-central-2", 47.38, 8.54),
    ("eu-west-1", 53.35, -6.26),
    ("eu-west-2", 51.51, -0.13),
    ("eu-west-3", 48.86, 2.35),
    ("eu-north-1", 59.33, 18.07),
    ("eu-south-1", 45.46, 9.19),
    ("eu-south-2", 41.65, -0.88),
    ("il-central-1", 32.09, 34.78),
    ("me-central-1", 24.45, 54.38),
    ("me-south-1", 26.23, 50.59),
    ("af-south-1", -33.92, 18.42),
    ("ap-east-1", 22.32, 114.17),
    ("ap-east-2", 25.03, 121.57),
    ("ap-south-1", 19.08, 72.88),
    ("ap-south-2", 17.39, 78.49),
    ("ap-southeast-1", 1.35, 103.82),
    ("ap-southeast-2", -33.87, 151.21),
    ("ap-southeast-3", -6.21, 106.85),
    ("ap-southeast-4", -37.81, 144.96),
    ("ap-southeast-5", 3.15, 101.69),
    ("ap-southeast-7", 13.76, 100.50),
    ("ap-northeast-1", 35.68, 139.69),
    ("ap-northeast-2", 37.57, 126.98),
    ("ap-northeast-3", 34.69, 135.50),
    ("cn-north-1", 39.90, 116.41),
    ("cn-northwest-1", 37.51, 105.19),
    // Google Cloud
    ("us-central1", 41.26, -95.86),
    ("us-east1", 33.20, -80.01),
    ("us-east4", 39.04, -77.49),
    ("us-east5", 39.96, -83.00),
    ("us-south1", 32.78, -96.80),
    ("us-west1", 45.60, -121.18),
    ("us-west2", 34.05, -118.24),
    ("us-west3", 40.76, -111.89),
    ("us-west4", 36.17, -115.14),
    ("northamerica-northeast1", 45.50, -73.57),
    ("northamerica-northeast2", 43.65, -79.38),
    ("northamerica-south1", 20.59, -100.39),
    ("southamerica-east1", -23.55, -46.63),
    ("southamerica-west1", -33.45, -70.67),
    ("europe-west1", 50.47, 3.82),
    ("europe-west2", 51.51, -0.13),
    ("europe-west3", 50.11, 8.68),
    ("europe-west4", 53.44, 6.84),
    ("europe-west6", 47.38, 8.54),
    ("europe-west8", 45.46, 9.19),
    ("europe-west9", 48.86, 2.35),
    ("europe-west10", 52.52, 13.41),
    ("europe-west12", 45.07, 7.69),
    ("europe-central2", 52.23, 21.01),
    ("europe-north1", 60.57, 27.19),
    ("europe-north2", 59.33, 18.07),
    ("europe-southwest1", 40.42, -3.70),
    ("me-west1", 32.09, 34.78),
    ("me-central1", 25.29, 51.53),
    ("me-central2", 26.42, 50.09),
    ("africa-south1", -26.20, 28.05),
    ("asia-east1", 24.05, 120.52),
    ("asia-east2", 22.32, 114.17),
    ("asia-northeast1", 35.68, 139.69),
    ("asia-northeast2", 34.69, 135.50),
    ("asia-northeast3", 37.57, 126.98),
    ("asia-south1", 19.08, 72.88),
    ("asia-south2", 28.61, 77.21),
    ("asia-southeast1", 1.35, 103.82),
    ("asia-southeast2", -6.21, 106.85),
    ("australia-southeast1", -33.87, 151.21),
    ("australia-southeast2", -37.81, 144.96),
    // Azure
    ("eastus", 37.37, -79.82),
    ("eastus2", 36.67, -78.39),
    ("centralus", 41.59, -93.62),
    ("northcentralus", 41.88, -87.63),
    ("southcentralus", 29.42, -98.50),
    ("westus", 37.78, -122.42),
    ("westus2", 47.23, -119.85),
    ("westus3", 33.45, -112.07),
    ("westcentralus", 40.89, -110.23),
    ("canadacentral", 43.65, -79.38),
    ("canadaeast", 46.82, -71.22),
    ("mexicocentral", 20.59, -100.39),
    ("brazilsouth", -23.55, -46.63),
    ("northeurope", 53.35, -6.26),
    ("westeurope", 52.37, 4.90),
    ("uksouth", 51.51, -0.13),
    ("ukwest", 51.48, -3.18),
    ("francecentral", 48.86, 2.35),
    ("germanywestcentral", 50.11, 8.68),
    ("switzerlandnorth", 47.38, 8.54),
    ("norwayeast", 59.91, 10.75),
    ("swedencentral", 60.67, 17.14),
    ("polandcentral", 52.23, 21.01),
    ("italynorth", 45.46, 9.19),
    ("spaincentral", 40.42, -3.70),
    ("israelcentral", 32.09, 34.78),
    ("uaenorth", 25.27, 55.30),
    ("qatarcentral", 25.29, 51.53),
    ("southafricanorth", -26.20, 28.05),
    ("eastasia", 22.32, 114.17),
    ("southeastasia", 1.35, 103.82),
    ("japaneast", 35.68, 139.69),
    ("japanwest", 34.69, 135.50),
    ("koreacentral", 37.57, 126.98),
    ("centralindia", 18.52, 73.86),
    ("southindia", 13.08, 80.27),
    ("australiaeast", -33.87, 151.21),
    ("australiasoutheast", -37.81, 144.96),
    ("newzealandnorth", -36.85, 174.76),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_well_known_region_stands_once_and_lies_on_the_globe() {
        for name in names() {
            assert!(well_known(name).is_some(), "{name}");
            assert_eq!(names().filter(|other| *other == name).count(), 1, "{name}");
        }
    }
}
