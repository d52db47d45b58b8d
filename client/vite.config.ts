import { fileURLToPath } from 'node:url'
import uniPlugin from '@dcloudio/vite-plugin-uni'
import { defineConfig, type Plugin as VitePlugin } from 'vite'

// The package is CommonJS; what a bundled config sees of it depends on who loads it.
type Plugin = typeof uniPlugin
const uni = (uniPlugin as unknown as { default?: Plugin }).default ?? uniPlugin

/** wot-design-uni's icons come from a foreign host; the client has icons of its own and calls nobody else. */
const withoutForeignFont: VitePlugin = {
  name: 'banyan:without-foreign-font',
  enforce: 'post',
  generateBundle(_options, bundle) {
    for (const file of Object.values(bundle)) {
      if (file.type === 'asset' && typeof file.source === 'string' && /\.(css|wxss)$/.test(file.fileName)) {
        file.source = file.source.replace(/@font-face\s*\{[^}]*(alicdn|wd-icons)[^}]*\}/g, '')
      }
    }
  },
}

export default defineConfig({
  plugins: [uni(), withoutForeignFont],
  resolve: { alias: { '@': fileURLToPath(new URL('./src', import.meta.url)) } },
  define: {
    // The mini-program's server where ext.json names none; `make miniprogram` sets it.
    __BANYAN_SERVER__: JSON.stringify(process.env.BANYAN_SERVER ?? ''),
  },
  // Django's shell (saas/shell.py) reads which files the page begins with.
  build: { manifest: process.env.UNI_PLATFORM === 'h5', target: 'es2019' },
  css: { preprocessorOptions: { scss: { quietDeps: true, silenceDeprecations: ['legacy-js-api'] } } },
})
