export default { serverExternalPackages: ['kontext-webgpu', 'webgpu', 'sharp'] };
