import { fileURLToPath } from 'node:url'
import uniPlugin from '@dcloudio/vite-plugin-uni'
import { defineConfig, type Plugin as VitePlugin } from 'vite'

// The package is CommonJS; what a bundled config sees of it depends on who loads it.
type Plugin = typeof uniPlugin
const uni = (uniPlugin as unknown as { default?: Plugin }).default ?? uniPlugin

/** wot-design-uni's icons and a shadow of uni-app's come from foreign hosts; the client calls nobody but its server. */
const withoutForeignHosts: VitePlugin = {
  name: 'banyan:without-foreign-hosts',
  enforce: 'post',
  generateBundle(_options, bundle) {
    for (const file of Object.values(bundle)) {
      if (file.type === 'asset' && typeof file.source === 'string' && /\.(css|wxss)$/.test(file.fileName)) {
        file.source = file.source
          .replace(/@font-face\s*\{[^}]*(alicdn|wd-icons)[^}]*\}/g, '')
          .replace(/url\(["']?https?:[^)]*\)/g, 'none')
      }
    }
  },
}

export default defineConfig({
  // Where Django serves it; a mini-program has no addresses.
  base: process.env.UNI_PLATFORM === 'h5' ? '/static/client/' : '/',
  plugins: [uni(), withoutForeignHosts],
  resolve: { alias: { '@': fileURLToPath(new URL('./src', import.meta.url)) } },
  define: {
    // The mini-program's server where ext.json names none; `make miniprogram` sets it.
    __BANYAN_SERVER__: JSON.stringify(process.env.BANYAN_SERVER ?? ''),
  },
  // Django's shell (saas/shell.py) reads which files the page begins with.
  build: { manifest: process.env.UNI_PLATFORM === 'h5', target: 'es2019', rollupOptions: { output: { experimentalMinChunkSize: 12_000 } } },
  css: { preprocessorOptions: { scss: { quietDeps: true, silenceDeprecations: ['legacy-js-api'] } } },
})
