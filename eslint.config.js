import js from '@eslint/js';
import globals from 'globals';

export default [
  { ignores: ['**/node_modules/', '.venv/', '_docs/', '_proc/', 'build/', 'lesion_seg/webapp/app.js'] },
  js.configs.recommended,
  {
    languageOptions: { ecmaVersion: 2022, sourceType: 'module' },
    rules: {
      'max-len': ['error', { code: 130 }],
      complexity: ['error', 20],
      'max-lines-per-function': ['error', 60],
      'max-depth': ['error', 4],
      'prefer-const': 'error',
      'no-var': 'error',
      eqeqeq: 'error',
      curly: ['error', 'multi-line'],
    },
  },
  { files: ['lesion_seg/webapp/*.js'], languageOptions: { globals: globals.browser } },
  {
    files: ['tests/js/**', 'eslint.config.js'],
    languageOptions: { globals: globals.node },
    rules: { 'max-lines-per-function': 'off' },
  },
];
